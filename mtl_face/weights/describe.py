"""What is known of initial weights, in lines for a person."""

from mtl_face.weights.backbone import LoadedBackbone

_MOST_LEFT_OUT = 8


def describe(backbone: LoadedBackbone, path: str) -> list[str]:
    """What a file is, what of it is used, and what is not.

    Args:
        backbone: what was read.
        path: the file.

    Returns:
        Lines.
    """
    source, variant = backbone.source, backbone.variant
    turned = ", turned to RGB" if variant.channel_order == "bgr" else ""
    lines = [
        f"initial weights: {path} (sha256 {source['sha256'][:12]}...)",
        f"  {source['format']}: {backbone.architecture}",
        f"  geometry {variant.name}; first convolution in {variant.channel_order.upper()}{turned}",
        f"  matched {source['convolutions']} convolutions and {source['batch_norms']} batch norms, "
        f"{source['parameters']:,} parameters, all of the right shape",
    ]
    left_out = [
        f"{name} {'x'.join(map(str, shape)) or 'one number'}" for name, shape in backbone.left_out
    ]
    if left_out:
        more = len(left_out) - _MOST_LEFT_OUT
        shown = ", ".join(left_out[:_MOST_LEFT_OUT]) + (f", and {more} more" if more > 0 else "")
        lines.append(f"  left out, not of the backbone: {shown}")
    else:
        lines.append("  left out: nothing")
    if "trained_on" in source:
        lines.append(f"  trained on {', '.join(source['trained_on'])}, as its content tells")
    lines += [f"  note: {note}" for note in backbone.notes]
    return lines
