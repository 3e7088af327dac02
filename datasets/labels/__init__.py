"""Labels of one's own: masks, shapes and tables of classes."""
