// What is drawn: an image with objects or with classes, at any zoom.

const HIDDEN = 0;

/** Pixels of a mask from COCO's run lengths: runs of 0, 1, 0, ... down the columns. */
export function maskPixels({ size: [height, width], counts }, [left, top, right, bottom]) {
  const across = right - left, down = bottom - top;
  const inside = new Uint8Array(across * down);
  let at = 0, value = 0;
  for (const run of counts) {
    if (value) {
      for (let i = Math.max(at, left * height); i < Math.min(at + run, right * height); i++) {
        const x = Math.floor(i / height), y = i - x * height;
        if (y >= top && y < bottom) inside[(y - top) * across + (x - left)] = 1;
      }
    }
    at += run;
    value = 1 - value;
  }
  return inside;
}

/** An object's mask as a picture of its colour, as large as its box. */
export function maskPicture(object, colour, width, height) {
  const [x1, y1, x2, y2] = object.box;
  const frame = [Math.max(0, Math.floor(x1) - 1), Math.max(0, Math.floor(y1) - 1), Math.min(width, Math.ceil(x2) + 1), Math.min(height, Math.ceil(y2) + 1)];
  const across = frame[2] - frame[0], down = frame[3] - frame[1];
  if (across < 1 || down < 1) return null;
  const inside = maskPixels(object.segmentation, frame);
  return { picture: painted(inside, across, down, (value) => (value ? [...colour, 255] : null)), left: frame[0], top: frame[1] };
}

/** A label map as a picture of its classes' colours; classes that are off stay clear. */
export function labelPicture(labels, width, height, colours, on) {
  return painted(labels, width, height, (label) => (on.has(label) ? [...colours[label], 255] : null));
}

function painted(values, width, height, colourOf) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const known = new Map();
  for (let i = 0; i < values.length; i++) {
    if (!known.has(values[i])) known.set(values[i], colourOf(values[i]));
    const colour = known.get(values[i]);
    if (colour) image.data.set(colour, 4 * i);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Zoom and position of an image in a frame; all in pixels of the frame. */
export class View {
  constructor() { this.scale = 1; this.x = 0; this.y = 0; }
  fit(width, height, across, down) {
    this.scale = Math.min(across / width, down / height);
    this.x = (across - width * this.scale) / 2;
    this.y = (down - height * this.scale) / 2;
  }
  zoom(factor, x, y) {
    const scale = Math.min(Math.max(this.scale * factor, 0.01), 64), by = scale / this.scale;
    this.x = x - (x - this.x) * by;
    this.y = y - (y - this.y) * by;
    this.scale = scale;
  }
  move(dx, dy) { this.x += dx; this.y += dy; }
}

const css = (colour, alpha = 1) => `rgba(${colour[0]}, ${colour[1]}, ${colour[2]}, ${alpha})`;
const ink = (colour) => (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 130 ? "#000" : "#fff");

/** Draw everything. `unit` is one pixel of the frame, so that lines and letters keep their size at any zoom. */
export function draw(context, scene, view, unit = 1) {
  const { width, height } = context.canvas;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  if (!scene.image) return;
  context.setTransform(view.scale, 0, 0, view.scale, view.x, view.y);
  context.imageSmoothingEnabled = view.scale < 3;
  context.drawImage(scene.image, 0, 0, scene.width, scene.height);
  if (scene.labels) {
    context.globalAlpha = scene.opacity;
    context.drawImage(scene.labels, 0, 0, scene.width, scene.height);
    context.globalAlpha = 1;
    return;
  }
  if (scene.show.masks) {
    context.globalAlpha = scene.opacity;
    for (const object of scene.objects) if (object.mask) context.drawImage(object.mask.picture, object.mask.left, object.mask.top);
    context.globalAlpha = 1;
  }
  const dense = scene.objects.length > 60;
  if (scene.show.boxes) {
    context.lineWidth = ((dense ? 1 : 2) * unit) / view.scale;
    for (const object of scene.objects) {
      const [x1, y1, x2, y2] = object.box;
      context.strokeStyle = css(object.colour);
      context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    }
  }
  if (scene.show.labels) drawLabels(context, scene.objects, view, unit);
}

/** Names above their boxes, the best first, whole where the box is seen; what would cover another name is left out. */
function drawLabels(context, objects, view, unit) {
  context.setTransform(1, 0, 0, 1, 0, 0);
  const size = 12 * unit, pad = 3 * unit, high = size + 2 * pad, placed = [];
  context.font = `${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const object of objects) {
    const text = `${object.name} ${object.score.toFixed(2)}`;
    const wide = context.measureText(text).width + 2 * pad;
    const left = view.x + object.box[0] * view.scale, right = view.x + object.box[2] * view.scale;
    const x = right > 0 && left < context.canvas.width ? Math.max(0, Math.min(left, context.canvas.width - wide)) : left;
    let y = view.y + object.box[1] * view.scale - high;
    if (y < HIDDEN) y = view.y + object.box[3] * view.scale;
    if (placed.some((p) => x < p[0] + p[2] && p[0] < x + wide && y < p[1] + high && p[1] < y + high)) continue;
    placed.push([x, y, wide]);
    context.fillStyle = css(object.colour, 0.92);
    context.fillRect(x, y, wide, high);
    context.fillStyle = ink(object.colour);
    context.fillText(text, x + pad, y + high / 2);
  }
}
