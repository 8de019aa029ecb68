import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_channelmae.models.padding import pad


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 2, 4, 8]))
def test_padding_ends_at_the_next_multiple_and_keeps_the_image(height, width, stride):
    image = torch.arange(2.0 * height * width).reshape(1, 2, height, width)
    padded = pad(image, stride)
    assert torch.equal(padded[..., :height, :width], image)
    for side, original in zip(padded.shape[2:], (height, width), strict=True):
        assert side % stride == 0
        assert original <= side < original + stride


def test_an_image_is_mirrored_at_its_bottom_and_right():
    image = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]]])
    expected = [[1, 2, 3, 2], [4, 5, 6, 5], [7, 8, 9, 8], [4, 5, 6, 5]]
    assert pad(image, 4)[0, 0].tolist() == expected


def test_an_image_of_fewer_pixels_than_the_padding_repeats_its_edge():
    padded = pad(torch.tensor([[[[1.0, 2.0]]]]), 4)
    assert padded.tolist() == [[[[1.0, 2.0, 2.0, 2.0]] * 4]]


def test_models_of_other_encoders_stay_as_they_are():
    model = smp.FPN('resnet18', encoder_weights=None)
    with pytest.raises(RuntimeError, match='Wrong input shape'):
        model(torch.randn(1, 3, 120, 120))
