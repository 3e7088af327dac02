"""What recipes have in common: the form of a recipe, and what runs it."""
