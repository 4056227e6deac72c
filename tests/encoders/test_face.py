"""Faces: crops are upright, points come back to the frame, a picture without a face is no face."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from encoders.video._face import anchors, sigmoid, to_frame, upright
from encoders.video._mini_xception import MiniXception
from encoders.video.face_expression import CLASSES


def test_the_detector_has_its_896_anchors_inside_the_frame():
    found = anchors()
    assert found.shape == (896, 2)
    assert found.min() > 0
    assert found.max() < 1
    # 16 x 16 cells hold two anchors each, then 8 x 8 cells six.
    np.testing.assert_allclose(found[0], [0.5 / 16, 0.5 / 16])
    np.testing.assert_allclose(found[2 * 256], [0.5 / 8, 0.5 / 8])


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.0])
def test_an_upright_crop_and_its_points_agree_about_where_things_are(angle):
    pixels = np.zeros((200, 200, 3), np.uint8)
    y, x = 90, 130
    pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
    centre, side, size = (110.0, 100.0), 100.0, 100
    crop = np.asarray(upright(Image.fromarray(pixels), centre, side, angle, size))[:, :, 0]
    row, column = np.argwhere(crop > 128).mean(0)
    point = np.array([[(column + 0.5) / size, (row + 0.5) / size, 0.0]])
    np.testing.assert_allclose(to_frame(point, centre, side, angle)[0, :2], [x, y], atol=1.5)


def test_turning_by_the_eye_line_makes_it_level():
    angle = 0.5
    eyes = np.array([[60.0, 80.0], [60 + 40 * math.cos(angle), 80 + 40 * math.sin(angle)]])
    pixels = np.zeros((200, 200, 3), np.uint8)
    for x, y in eyes.round().astype(int):
        pixels[y - 1 : y + 2, x - 1 : x + 2] = 255
    middle = eyes.mean(0)
    crop = upright(Image.fromarray(pixels), (middle[0], middle[1]), 100.0, angle, 100)
    bright = np.argwhere(np.asarray(crop)[:, :, 0] > 100)
    rows = [group[:, 0].mean() for group in (bright[bright[:, 1] < 50], bright[bright[:, 1] >= 50])]
    assert abs(rows[0] - rows[1]) < 1.5


def test_the_logistic_function_does_not_overflow():
    assert sigmoid(-1000.0) == 0
    assert sigmoid(1000.0) == 1
    assert sigmoid(0.0) == 0.5


def test_the_expression_net_has_the_papers_size_and_its_features_feed_its_logits():
    torch.manual_seed(0)
    net = MiniXception().eval()
    # The paper counts 60,000 with the batch norms' statistics.
    assert sum(parameter.numel() for parameter in net.parameters()) == 56_951
    features, logits = net(torch.randn(3, 1, 64, 64))
    assert features.shape == (3, 128)
    assert logits.shape == (3, len(CLASSES))
    one, _ = net(torch.zeros(1, 1, 64, 64))
    both, _ = net(torch.zeros(2, 1, 64, 64))
    torch.testing.assert_close(one[0], both[1])
