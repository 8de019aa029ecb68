"""Names of the classes of land-cover maps."""

from torchgeo.datasets import NLCD, Esri2020

MAPS = {  # MMEarth's own maps, as TorchGeo numbers their classes
    'worldcover': (
        'esa_worldcover',
        'tree cover',
        'shrubland',
        'grassland',
        'cropland',
        'built-up',
        'bare or sparse vegetation',
        'snow and ice',
        'permanent water bodies',
        'herbaceous wetland',
        'mangroves',
        'moss and lichen',
    ),
    'dynamic_world': (
        'dynamic_world',
        'water',
        'trees',
        'grass',
        'flooded vegetation',
        'crops',
        'shrub and scrub',
        'built',
        'bare',
        'snow and ice',
    ),
}
"""Name of a source: the modality of MMEarth, and the names of classes 0, 1, ..."""

RASTERS: dict[type, tuple[dict[int, str], tuple[int, ...]]] = {
    Esri2020: (
        dict(
            enumerate(
                (
                    'water',
                    'trees',
                    'grass',
                    'flooded vegetation',
                    'crops',
                    'scrub or shrub',
                    'built area',
                    'bare ground',
                    'snow or ice',
                ),
                start=1,
            )
        ),
        (0, 10),  # no data, clouds
    ),
    NLCD: (
        dict(
            enumerate(
                (
                    'open water',
                    'perennial ice or snow',
                    'developed, open space',
                    'developed, low intensity',
                    'developed, medium intensity',
                    'developed, high intensity',
                    'barren land',
                    'deciduous forest',
                    'evergreen forest',
                    'mixed forest',
                    'shrub or scrub',
                    'grassland or herbaceous',
                    'pasture or hay',
                    'cultivated crops',
                    'woody wetlands',
                    'emergent herbaceous wetlands',
                )
            )
        ),
        (16,),  # background
    ),
}
"""Class of rasters: names of values as it returns them, and values that are none."""
