"""How callmood is run: the local stack, images, charts."""
