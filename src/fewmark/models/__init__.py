"""Networks, one a file. `build.build_model` makes one by its name."""
