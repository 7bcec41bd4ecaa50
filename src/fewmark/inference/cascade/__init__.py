"""The coarse-to-fine cascade: a fold over stages that take and return face states."""
