"""SISE and its variants: the layer rule, feature maps, masks, scores, fusion."""
