"""The `meshwright` command line: one typer application that mounts the services' own commands."""
