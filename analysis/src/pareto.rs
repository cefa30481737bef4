//! The Pareto front of a sweep.

/// Which points no other point beats: a point is beaten if another is at least as good in every direction and better in
/// one. Equal points stand or fall together; a point with NaN is on no front. Quadratic in the number of points.
pub fn pareto<const K: usize>(points: &[[f64; K]], maximise: [bool; K]) -> Vec<bool> {
    // Larger is better from here on.
    let oriented =
        |point: &[f64; K]| -> [f64; K] { std::array::from_fn(|i| if maximise[i] { point[i] } else { -point[i] }) };
    let points: Vec<[f64; K]> = points.iter().map(oriented).collect();
    let beats = |a: &[f64; K], b: &[f64; K]| a.iter().zip(b).all(|(a, b)| a >= b) && a != b;
    points
        .iter()
        .map(|point| !point.iter().any(|x| x.is_nan()) && !points.iter().any(|other| beats(other, point)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accuracy_up_and_energy_down() {
        let points = [[0.9, 5.0], [0.8, 4.0], [0.7, 4.0], [0.9, 6.0], [0.95, 9.0], [f64::NAN, 1.0], [0.8, 4.0]];
        assert_eq!(pareto(&points, [true, false]), [true, true, false, false, true, false, true]);
        assert_eq!(pareto::<2>(&[], [true, true]), [true; 0]);
    }

    proptest! {
        #[test]
        fn each_point_is_on_the_front_or_behind_a_point_of_it(
            points in prop::collection::vec(prop::array::uniform3((0u8..6).prop_map(f64::from)), 1..40),
            maximise in prop::array::uniform3(any::<bool>()),
        ) {
            let front = pareto(&points, maximise);
            prop_assert!(front.contains(&true));
            for (point, on_front) in points.iter().zip(&front) {
                // By the definition, written the other way round.
                let behind = |other: &[f64; 3]| {
                    let gains: Vec<f64> = (0..3).map(|i| (other[i] - point[i]) * if maximise[i] { 1.0 } else { -1.0 }).collect();
                    gains.iter().all(|gain| *gain >= 0.0) && gains.iter().sum::<f64>() > 0.0
                };
                let beaten = points.iter().zip(&front).any(|(other, on_front)| *on_front && behind(other));
                prop_assert_eq!(*on_front, !beaten);
            }
        }
    }
}
