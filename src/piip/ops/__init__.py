"""The operations that PIIP exists for, as plain functions of tensors."""
