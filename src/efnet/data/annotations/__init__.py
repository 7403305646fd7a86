"""Files of annotation tools, LabelMe, COCO, CVAT and Label Studio, to label maps and back."""
