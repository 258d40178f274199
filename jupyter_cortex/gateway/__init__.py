"""The HTTP door: public routes, control routes, chaining names."""
