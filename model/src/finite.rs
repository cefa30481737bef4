//! Whether all numbers of a tensor are finite. One weight that is not spoils every logit that it reaches, and a run over
//! such logits still looks like a run.

use candle_core::{CpuStorage, Result, Storage, Tensor};
use half::{bf16, f16};

/// Elements that are looked at before the answer is asked for: without an exit in the loop it runs at the speed of memory.
const STRETCH: usize = 4096;

/// The first element of a floating-point tensor that is NaN or infinite: its place in row-major order, and itself.
pub(crate) fn first_non_finite(tensor: &Tensor) -> Result<Option<(usize, f32)>> {
    // Files give contiguous tensors, of which this is another handle, not a copy.
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { return Ok(None) };
    let (from, len) = (layout.start_offset(), layout.shape().elem_count());
    Ok(match storage {
        CpuStorage::F32(values) => first(&values[from..][..len], |v| v.to_bits() << 1 >= 0xff << 24, |v| v),
        CpuStorage::F16(values) => first(&values[from..][..len], |v| v.to_bits() << 1 >= 0x1f << 11, f16::to_f32),
        CpuStorage::BF16(values) => first(&values[from..][..len], |v| v.to_bits() << 1 >= 0xff << 8, bf16::to_f32),
        _ => None,
    })
}

/// `is_odd` says of an element whether all bits of its exponent are set.
fn first<T: Copy>(values: &[T], is_odd: impl Fn(T) -> bool, wide: impl Fn(T) -> f32) -> Option<(usize, f32)> {
    let any = |stretch: &[T]| stretch.iter().fold(false, |any, value| any | is_odd(*value));
    let index = values.chunks(STRETCH).position(any)? * STRETCH;
    let at = index + values[index..].iter().position(|value| is_odd(*value))?;
    Some((at, wide(values[at])))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use candle_core::{DType, Device};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_is_found_in_every_type() {
        let mut values = vec![f32::from_bits(1), -0.0, f16::MAX.to_f32(), -1.0];
        values.resize(3 * STRETCH + 5, 0.5);
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            for at in [0, 3, STRETCH, 2 * STRETCH + 7, values.len() - 1] {
                for kind in [DType::F32, DType::F16, DType::BF16] {
                    let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap().to_dtype(kind).unwrap();
                    assert_eq!(first_non_finite(&tensor(&values)).unwrap(), None);
                    let mut bad = values.clone();
                    bad[at] = odd;
                    let (found, value) = first_non_finite(&tensor(&bad)).unwrap().unwrap();
                    assert_eq!((found, value.is_nan()), (at, odd.is_nan()), "{kind:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_standard_library(bits: u32, half: u16) {
            let single = |tensor: Tensor| first_non_finite(&tensor).unwrap().is_none();
            let f = f32::from_bits(bits);
            prop_assert_eq!(single(Tensor::new(&[f], &Device::Cpu).unwrap()), f.is_finite());
            let f = f16::from_bits(half);
            prop_assert_eq!(single(Tensor::new(&[f], &Device::Cpu).unwrap()), f.is_finite());
            let f = bf16::from_bits(half);
            prop_assert_eq!(single(Tensor::new(&[f], &Device::Cpu).unwrap()), f.is_finite());
        }
    }
}
