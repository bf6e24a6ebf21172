"""How each layer is reversed: one file per family, each rule one equation of the paper."""
