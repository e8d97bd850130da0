"""The dashboard: one page with the mesh as it stands, served by `meshwright up`."""
