"""`meshwright analyze`: what is probably wrong in a mesh, found in the inner model by pure functions, by family."""
