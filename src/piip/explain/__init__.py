"""What the parts of a pyramid do: what is lost without each (`ablation`), what each gives (`contributions`)."""
