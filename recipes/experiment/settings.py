"""How the papers train and evaluate, and the small experiments beside them."""

from experiment.plan import Row, Setting

# Additions to an evaluation: the papers' multi-scale test, and the dense CRF.
MULTI_SCALE = {'eval_scales': [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]}
SMALL_SCALES = [0.75, 1.0, 1.25]
FLIPS = {'add_flipped_images': True}
CRF = {'crf': True}

# Bands around the void label, as the figures of v1, v2 and v3+ have them.
TRIMAP = {
  'trimap_widths': [1, 2, 3, 5, 8, 10, 15, 20, 30, 40],
  'trimap_boundary': 'void',
}


def _on_test(split, crop_size):
  """Flags of an evaluation for vis.py on images without public labels."""
  return {
    'eval_split': None,
    'eval_crop_size': None,
    'vis_split': split,
    'vis_crop_size': crop_size,
    'also_save_raw_predictions': True,
  }


VOC_TEST = _on_test('test', [513, 513])
CITYSCAPES_TEST = _on_test('test_fine', [1025, 2049])


def with_crf(row, paper=None, **fields):
  """A row with the weights of another, evaluated with the CRF as well.

  At small scale that is on shapes, images a fifth as large as the papers'.
  """
  return Row(
    f'{row.name}_crf',
    paper=paper,
    weights=row.weights or row.name,
    eval={**row.eval, **CRF},
    small_eval={**row.small_eval, 'crf_sigma_alpha': 10.0},
    data=row.data,
    scales=row.scales,
    script=row.script,
    **fields,
  )


_VOC_EVAL = {'eval_split': 'val', 'eval_crop_size': [513, 513]}
_ONE_SCALE = {'min_scale_factor': 1.0, 'max_scale_factor': 1.0}

# v1 (section 5): 20 crops of 321, the labels made as small as the logits, no
# change of scale.
_V1_TRAIN = {
  'model_variant': 'vgg_16',
  'output_stride': 8,
  'aspp_with_batch_norm': False,
  'train_split': 'train_aug',
  'train_crop_size': [321, 321],
  'upsample_logits': False,
  **_ONE_SCALE,
  'train_batch_size': 20,
  'learning_policy': 'step',
  'base_learning_rate': 0.001,
  'learning_rate_decay_step': 2000,
  'learning_rate_decay_factor': 0.1,
  'training_number_of_steps': 6000,
  'last_layer_gradient_multiplier': 10.0,
  'weight_decay': 0.0005,
}
VOC_V1 = Setting(
  text='VGG-16 on PASCAL VOC 2012',
  data='pascal_voc',
  checkpoint='vgg_16_imagenet',
  train=_V1_TRAIN,
  eval=_VOC_EVAL,
)

# v2 (section 4.1.2): the schedule of v1 becomes poly, 20k steps of 10 crops.
_V2_SCHEDULE = {
  'train_batch_size': 10,
  'learning_policy': 'poly',
  'learning_rate_decay_step': None,
  'learning_rate_decay_factor': None,
  'training_number_of_steps': 20000,
}
VOC_V2_VGG = Setting(
  text='VGG-16 on PASCAL VOC 2012',
  data='pascal_voc',
  checkpoint='vgg_16_imagenet',
  train={**_V1_TRAIN, **_V2_SCHEDULE},
  eval=_VOC_EVAL,
)

# The learning rate is that of the released models; the paper has none. Batch
# norm stays as it was on ImageNet.
_V2_TRAIN = {
  **_V1_TRAIN,
  **_V2_SCHEDULE,
  'model_variant': 'resnet_v1_101',
  'base_learning_rate': 0.00025,
  'fine_tune_batch_norm': False,
}
VOC_V2_RESNET = Setting(
  text='ResNet-101 on PASCAL VOC 2012',
  data='pascal_voc',
  checkpoint='resnet_v1_101_imagenet',
  train=_V2_TRAIN,
  eval=_VOC_EVAL,
)

# v3 (section 4.1): 30k steps of 16 crops of 513 with batch norm at output
# stride 16.
_V3_SCHEDULE = {
  'output_stride': 16,
  'train_split': 'train_aug',
  'train_crop_size': [513, 513],
  'train_batch_size': 16,
  'base_learning_rate': 0.007,
  'training_number_of_steps': 30000,
}
RESNET_101 = {
  'model_variant': 'resnet_v1_101_beta',
  'weight_decay': 0.0001,
  'multi_grid': [1, 2, 4],
  'atrous_rates': [6, 12, 18],
  'aspp_with_separable_conv': False,
}
CASCADE = {
  'model_variant': 'resnet_v1_101_beta',
  'weight_decay': 0.0001,
  'aspp_with_batch_norm': False,
}
# v3+ (section 4.3): no multi-grid.
XCEPTION_65 = {
  'model_variant': 'xception_65',
  'weight_decay': 0.00004,
  'atrous_rates': [6, 12, 18],
  'aspp_with_separable_conv': False,
}

# Flags of the decoder of v3+ without depthwise separable convolutions.
DECODER = {'decoder_output_stride': [4], 'decoder_use_separable_conv': False}

# The second stage of v3 and v3+ for the test set: more steps on trainval at
# output stride 8, with frozen batch norm.
STAGE_2 = {
  'output_stride': 8,
  'train_split': 'trainval',
  'fine_tune_batch_norm': False,
  'base_learning_rate': 0.001,
}


def voc(network, **train):
  """PASCAL VOC in the protocol of v3 and v3+, from ImageNet weights.

  Args:
    network: flags of the network, one of those above.
    **train: further flags of train.py.

  Returns:
    A Setting.
  """
  train = {**_V3_SCHEDULE, **network, **train}
  variant = train['model_variant']
  return Setting(
    text=f'{variant} on PASCAL VOC 2012',
    data='pascal_voc',
    checkpoint=f'{variant}_imagenet',
    train=train,
    eval=_VOC_EVAL,
  )


def cityscapes(network, **train):
  """Cityscapes in the protocol of v3 (appendix C) and v3+.

  Args:
    network: flags of the network.
    **train: further flags of train.py.

  Returns:
    A Setting: 90k steps of crops of 769, evaluation of whole images.
  """
  return voc(network).change(
    text=f'{network["model_variant"]} on Cityscapes',
    data='cityscapes',
    train={
      'dataset': 'cityscapes',
      'train_split': 'train_fine',
      'train_crop_size': [769, 769],
      'training_number_of_steps': 90000,
      **train,
    },
    eval={
      'dataset': 'cityscapes',
      'eval_split': 'val_fine',
      'eval_crop_size': [1025, 2049],
    },
  )


# Small scale: 11 classes of the road, from the published MobileNetV2 network.
# Some six minutes of training on two cores.
CAMVID = Setting(
  text='MobileNetV2 on CamVid',
  data='camvid',
  checkpoint='mobilenet_v2',
  train={
    'model_variant': 'mobilenet_v2',
    'output_stride': 16,
    'initialize_last_layer': False,
    'train_crop_size': [193, 257],
    'train_batch_size': 8,
    'base_learning_rate': 0.02,
    'batch_norm_decay': 0.97,
    'min_scale_factor': 0.5,
    'max_scale_factor': 1.5,
    'training_number_of_steps': 500,
    'log_steps': 50,
  },
  eval={'eval_crop_size': [361, 481]},
)

_SHAPES_TRAIN = {
  'train_crop_size': [65, 65],
  'train_batch_size': 16,
  'min_scale_factor': 0.75,
  'max_scale_factor': 1.25,
  'training_number_of_steps': 400,
  'log_steps': 50,
}
_SHAPES_EVAL = {'eval_crop_size': [65, 81]}

# Small scale: generated shapes of 64x80 pixels, from scratch.
SHAPES_RESNET = Setting(
  text='ResNet-18 on generated shapes',
  data='shapes',
  train={
    'model_variant': 'resnet_v1_18_beta',
    'output_stride': 16,
    'base_learning_rate': 0.03,
    'batch_norm_decay': 0.95,
    'aspp_with_batch_norm': False,
    **_SHAPES_TRAIN,
  },
  eval=_SHAPES_EVAL,
)
# As in v2: output stride 8, no change of scale.
SHAPES_V2_RESNET = SHAPES_RESNET.change(
  train={'output_stride': 8, **_ONE_SCALE}
)
SHAPES_VGG = Setting(
  text='VGG-16 on generated shapes',
  data='shapes',
  train={
    'model_variant': 'vgg_16',
    'output_stride': 8,
    'aspp_with_batch_norm': False,
    'base_learning_rate': 0.005,
    'last_layer_gradient_multiplier': 10.0,
    **_SHAPES_TRAIN,
    **_ONE_SCALE,
    'train_batch_size': 8,
    'training_number_of_steps': 200,
    'log_steps': 20,
  },
  eval=_SHAPES_EVAL,
)
