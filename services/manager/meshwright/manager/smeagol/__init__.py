"""The kinds of Smeagol, the draft that the Service Mesh Interface grew from."""
