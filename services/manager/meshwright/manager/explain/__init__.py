"""`meshwright explain`: why the mesh does what it does with a request, told from the inner model by pure functions."""
