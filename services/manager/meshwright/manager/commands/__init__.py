"""The commands of `meshwright` that speak of configuration: one file for what belongs together."""
