"""The data sets of the eight papers: terms, and how to obtain them. Each stands here once.

Sizes are the archives' as their publishers give them, or "about" where recalled.
"""

from __future__ import annotations

from cvpr21lib.papers.entry import DataSet

FIVEK = DataSet(
    "fivek",
    "MIT-Adobe FiveK",
    "research use; one of two licences (Adobe, Adobe-MIT) for each photograph",
    "5,000 photographs with retouching by five experts; about 50 GB of DNG files and a Lightroom catalogue. "
    "LPTN trains on a 480p JPEG package of its authors (Google Drive); it can also be built from renderings "
    "of your own.",
    url="https://data.csail.mit.edu/graphics/fivek/",
    script="fivek",
)
LPTN_FLICKR = DataSet(
    "lptn_flickr",
    "LPTN's day→night and summer→winter photographs",
    "research use, on request to the authors",
    "not publicly downloadable; any two folders of photographs can stand in for them",
    script="folders",
)
PPR10K = DataSet(
    "ppr10k",
    "PPR10K",
    "non-commercial research only; images and derived data may not be passed on",
    "Google Drive, OneDrive or Baidu Pan, by hand; 406 GB in all, 91 GB for the 360p images used in training",
    url="https://github.com/csjliang/PPR10K",
    script="ppr10k",
)
VOC2012 = DataSet(
    "voc2012",
    "PASCAL VOC 2012",
    "images under Flickr's terms",
    "plain download, VOCtrainval_11-May-2012.tar, about 2.0 GB",
    url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    script="voc2012",
)
SBD = DataSet(
    "sbd",
    "Semantic Boundaries Dataset (SBD)",
    "none given; asks to be cited",
    "plain download, benchmark.tgz, about 1.4 GB; its masks complete VOC's training set to 10,582 images",
    url="http://home.bharathh.info/pubs/codes/SBD/download.html",
    script="voc2012",
)
PFAN_SALIENCY = DataSet(
    "pfan_saliency",
    "PFAN saliency maps for VOC and COCO",
    None,
    "Google Drive archives linked in the official README; PFAN itself was trained with pixel masks (DUTS)",
    script="saliency",
)
COCO2014 = DataSet(
    "coco2014",
    "MS COCO 2014",
    "annotations CC BY 4.0; images under Flickr's terms",
    "plain download: train2014.zip 13 GB, val2014.zip 6 GB, annotations_trainval2014.zip 241 MB",
    url="https://cocodataset.org",
    script="coco2014",
)
COCO2017 = DataSet(
    "coco2017",
    "MS COCO 2017, panoptic",
    "annotations CC BY 4.0; images under Flickr's terms",
    "plain download: train2017.zip 18 GB, val2017.zip 1 GB, annotations_trainval2017.zip 241 MB, "
    "panoptic_annotations_trainval2017.zip 821 MB",
    url="https://cocodataset.org",
    script="coco_panoptic",
)
SYNTHIA = DataSet(
    "synthia",
    "SYNTHIA-RAND-CITYSCAPES",
    "non-commercial (CC BY-NC-SA 3.0, recalled)",
    "registration; SYNTHIA_RAND_CITYSCAPES.rar, about 20 GB (not RAND_CVPR16, which has no depth)",
    url="http://synthia-dataset.net",
    script="synthia",
)
CITYSCAPES = DataSet(
    "cityscapes",
    "Cityscapes",
    "its own non-commercial terms",
    "registration; leftImg8bit_trainvaltest.zip 11 GB and gtFine_trainvaltest.zip 241 MB; to evaluate depth "
    "also disparity_trainvaltest.zip 3.5 GB and camera_trainvaltest.zip 2 MB",
    url="https://www.cityscapes-dataset.com",
    script="cityscapes",
)
MAPILLARY = DataSet(
    "mapillary",
    "Mapillary Vistas v1 (66 labels)",
    "research edition, CC BY-NC-SA",
    "registration; mapillary-vistas-dataset_public_v1.2.zip, about 25 GB: 18,000 training and 2,000 "
    "validation images",
    url="https://www.mapillary.com/dataset/vistas",
    script="mapillary",
)
FLICKR25K = DataSet(
    "flickr25k",
    "MIRFLICKR-25000",
    "Creative Commons images, research use",
    "plain download: mirflickr25k.zip about 2.9 GB, mirflickr25k_annotations_v080.zip",
    url="https://press.liacs.nl/mirflickr",
    script="flickr25k",
)
NUS_WIDE = DataSet(
    "nus_wide",
    "NUS-WIDE",
    "research only",
    "labels by plain download; images by their Flickr addresses, many of them dead, or on request by form",
    url="https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html",
    script="nus_wide",
)
GAZE360 = DataSet(
    "gaze360",
    "Gaze360",
    "research only, non-commercial, no redistribution",
    "form; 197,588 frames of 238 people",
    url="http://gaze360.csail.mit.edu",
)
PANOPTIC = DataSet(
    "panoptic",
    "CMU Panoptic",
    "research, non-commercial",
    "the panoptic-toolbox's own download script, sequence by sequence",
)
AVA_LAEO = DataSet(
    "ava_laeo",
    "AVA-LAEO and UCO-LAEO",
    "research; films must be fetched by the user",
    "head boxes and labels from the LAEO-Net annotation sites; AVA v2.2 videos from the AVA site",
)
CHAIRS = DataSet(
    "chairs",
    "FlyingChairs",
    "research licence",
    "plain download, FlyingChairs.zip, about 31 GB, with the list chairs_train_val.txt",
)
SINTEL = DataSet(
    "sintel",
    "MPI-Sintel",
    None,
    "plain download, MPI-Sintel-complete.zip, 5.3 GB",
)
KITTI_FLOW = DataSet(
    "kitti_flow",
    "KITTI 2015 flow, with its multi-view extension",
    "non-commercial, CC BY-NC-SA",
    "registration; data_scene_flow.zip 2 GB for evaluation, data_scene_flow_multiview.zip 14 GB for training",
)
