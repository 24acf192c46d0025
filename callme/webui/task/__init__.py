"""The pages about one task: its state, forms that change it, and the form for a new task."""
