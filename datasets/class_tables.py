"""Classes of the published data sets, their names and colours: facts, no logic.

In the tables an underscore stands for the space inside a name.
"""

from deeplab.utils import get_dataset_colormap


def _names(text):
  """Splits a table of names."""
  return [name.replace('_', ' ') for name in text.split()]


PASCAL_VOC_NAMES = _names("""
  background aeroplane bicycle bird boat bottle bus car cat chair cow
  diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor
""")

CITYSCAPES_NAMES = _names("""
  road sidewalk building wall fence pole traffic_light traffic_sign vegetation
  terrain sky person rider car truck bus train motorcycle bicycle
""")

CITYSCAPES_COLORS = get_dataset_colormap.create_cityscapes_label_colormap()[
  :19
].tolist()

# The ids 0..33 of Cityscapes that are classes, in the order of the classes. All
# others are ignored, as is the licence plate, whose id -1 is 255 in a mask.
_CITYSCAPES_IDS = (
  *(7, 8, 11, 12, 13, 17, 19, 20, 21, 22),
  *(23, 24, 25, 26, 27, 28, 31, 32, 33),
)
TRAIN_ID_OF_ID = {
  **dict.fromkeys([*range(34), 255], 255),
  **{label_id: index for index, label_id in enumerate(_CITYSCAPES_IDS)},
}

CAMVID_NAMES = _names("""
  sky building pole road pavement tree sign_symbol fence car pedestrian
  bicyclist
""")

CAMVID_COLORS = [
  [128, 128, 128],
  [128, 0, 0],
  [192, 192, 128],
  [128, 64, 128],
  [60, 40, 222],
  [128, 128, 0],
  [192, 128, 128],
  [64, 64, 128],
  [64, 0, 128],
  [64, 64, 0],
  [0, 128, 192],
]

ADE20K_NAMES = _names("""
  background wall building sky floor tree ceiling road bed windowpane grass
  cabinet sidewalk person earth door table mountain plant curtain chair car
  water painting sofa shelf house sea mirror rug field armchair seat fence
  desk rock wardrobe lamp bathtub railing cushion base box column signboard
  chest_of_drawers counter sand sink skyscraper fireplace refrigerator
  grandstand path stairs runway case pool_table pillow screen_door stairway
  river bridge bookcase blind coffee_table toilet flower book hill bench
  countertop stove palm kitchen_island computer swivel_chair boat bar
  arcade_machine hovel bus towel light truck tower chandelier awning
  streetlight booth television airplane dirt_track apparel pole land bannister
  escalator ottoman bottle buffet poster stage van ship fountain conveyer_belt
  canopy washer plaything swimming_pool stool barrel basket waterfall tent bag
  minibike cradle oven ball food step tank trade_name microwave pot animal
  bicycle lake dishwasher screen blanket sculpture hood sconce vase
  traffic_light tray ashcan fan pier crt_screen plate monitor bulletin_board
  shower radiator glass clock flag
""")

ADE20K_COLORS = get_dataset_colormap.create_ade20k_label_colormap().tolist()

# The 80 things of COCO, in the order of their ids.
_COCO_THINGS = """
  person bicycle car motorcycle airplane bus train truck boat traffic_light
  fire_hydrant stop_sign parking_meter bench bird cat dog horse sheep cow
  elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee
  skis snowboard sports_ball kite baseball_bat baseball_glove skateboard
  surfboard tennis_racket bottle wine_glass cup fork knife spoon bowl banana
  apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch
  potted_plant bed dining_table toilet tv laptop mouse remote keyboard
  cell_phone microwave oven toaster sink refrigerator book clock vase scissors
  teddy_bear hair_drier toothbrush
"""

# The 91 kinds of stuff, ids 92..182.
_COCO_STUFF = """
  banner blanket branch bridge building-other bush cabinet cage cardboard
  carpet ceiling-other ceiling-tile cloth clothes clouds counter cupboard
  curtain desk-stuff dirt door-stuff fence floor-marble floor-other
  floor-stone floor-tile floor-wood flower fog food-other fruit
  furniture-other grass gravel ground-other hill house leaves light mat metal
  mirror-stuff moss mountain mud napkin net paper pavement pillow plant-other
  plastic platform playingfield railing railroad river road rock roof rug
  salad sand sea shelf sky-other skyscraper snow solid-other stairs stone
  straw structural-other table tent textile-other towel tree vegetable
  wall-brick wall-concrete wall-other wall-panel wall-stone wall-tile
  wall-wood water-other waterdrops window-blind window-other wood
"""

COCO_STUFF_NAMES = _names(_COCO_THINGS + _COCO_STUFF)


def pascal_colormap(size=256):
  """The colour map of PASCAL VOC; it is invertible.

  Args:
    size: number of colours, at most 256.

  Returns:
    A list of `size` lists [red, green, blue].
  """
  return get_dataset_colormap.create_pascal_label_colormap()[:size].tolist()
