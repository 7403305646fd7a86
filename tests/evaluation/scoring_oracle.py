"""A second, slow way to the figures: sets of pixels per class, straight from the definitions."""

import math


def pixel_sets(maps, num_classes):
    """Per class, the set of (image, row, column) that carry it."""
    sets = [set() for _ in range(num_classes)]
    for image, values in enumerate(maps):
        for row, line in enumerate(values.tolist()):
            for column, value in enumerate(line):
                if value < num_classes:
                    sets[value].add((image, row, column))
    return sets


def mean(values, averaged, absent):
    chosen = [values[value] for value in averaged]
    if absent == "zero":
        chosen = [0.0 if math.isnan(value) else value for value in chosen]
    chosen = [value for value in chosen if not math.isnan(value)]
    return sum(chosen) / len(chosen) if chosen else None


def oracle(
    truths, predictions, num_classes, *, averaged=None, ignored_truth=(), ignored_prediction=(), absent="skip"
):
    """mIoU, mAcc, IoU per class, acc per class (NaN where undefined)."""
    truth = pixel_sets(truths, num_classes)
    predicted = pixel_sets(predictions, num_classes)
    counted = set().union(*(pixels for value, pixels in enumerate(truth) if value not in ignored_truth))
    for value in ignored_prediction:
        counted -= predicted[value]
    ious, accuracies = [], []
    for value in range(num_classes):
        is_there, is_said = truth[value] & counted, predicted[value] & counted
        union = is_there | is_said
        ious.append(len(is_there & is_said) / len(union) if union else math.nan)
        accuracies.append(len(is_there & is_said) / len(is_there) if is_there else math.nan)
    averaged = range(num_classes) if averaged is None else averaged
    return mean(ious, averaged, absent), mean(accuracies, averaged, absent), ious, accuracies
