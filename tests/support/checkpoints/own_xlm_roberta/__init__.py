"""Model code as a checkpoint ships it; the tests copy it beside weights."""
