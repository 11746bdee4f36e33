"""Models and baselines that ship with the package; a recipe names them by module and class."""
