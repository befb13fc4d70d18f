"""A figure beside the goal that it has to reach."""


def reached(name: str, value: float, most: float, unit: str) -> bool:
    """Print whether `value` is at most `most`."""
    good = value <= most
    print(
        f"{'reached' if good else 'MISSED '}  {name}: {value:.2f} {unit}, wanted at most {most:g}"
    )
    return good
