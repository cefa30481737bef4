//! Least squares with few coefficients, none of them negative.

/// Columns of a fit.
pub(super) const COLUMNS: usize = 4;

/// Columns whose correlation leaves less than this of one of them are not told apart.
const SINGULAR: f64 = 1e-9;

/// Sums over the observations that a fit needs: XᵀWX and XᵀWy.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NormalEquations {
    gram: [[f64; COLUMNS]; COLUMNS],
    moments: [f64; COLUMNS],
}

impl NormalEquations {
    pub(super) fn add(&mut self, columns: [f64; COLUMNS], value: f64, weight: f64) {
        for i in 0..COLUMNS {
            for j in 0..COLUMNS {
                self.gram[i][j] += weight * columns[i] * columns[j];
            }
            self.moments[i] += weight * columns[i] * value;
        }
    }

    /// The coefficients ≥ 0 with the least squared error. Every set of columns is tried, of which there are fifteen: the
    /// best one whose own solution is not negative is the optimum.
    pub(super) fn solve_nonnegative(&self) -> [f64; COLUMNS] {
        let mut best = ([0.0; COLUMNS], 0.0);
        for set in 1..1_u32 << COLUMNS {
            let active: Vec<usize> = (0..COLUMNS).filter(|column| set >> column & 1 == 1).collect();
            let Some(solution) = self.solve(&active) else { continue };
            if solution.iter().any(|coefficient| *coefficient < 0.0) {
                continue;
            }
            // ‖y − Xb‖² = ‖y‖² − bᵀXᵀy at a solution of the normal equations.
            let explained: f64 =
                solution.iter().zip(self.moments).map(|(coefficient, moment)| coefficient * moment).sum();
            if explained > best.1 {
                best = (solution, explained);
            }
        }
        best.0
    }

    /// The solution with these columns alone; `None` if they are not independent.
    fn solve(&self, active: &[usize]) -> Option<[f64; COLUMNS]> {
        // Columns scaled to unit length: they differ by orders of magnitude.
        let scale: Vec<f64> = active.iter().map(|&i| self.gram[i][i].sqrt()).collect();
        if scale.contains(&0.0) {
            return None;
        }
        let n = active.len();
        let mut rows: Vec<Vec<f64>> = (0..n)
            .map(|i| {
                let row = (0..n).map(|j| self.gram[active[i]][active[j]] / (scale[i] * scale[j]));
                row.chain([self.moments[active[i]] / scale[i]]).collect()
            })
            .collect();
        // The matrix is positive semidefinite: elimination needs no exchange of rows, and a small pivot says that a column
        // is a combination of those before it.
        for pivot in 0..n {
            if rows[pivot][pivot] < SINGULAR {
                return None;
            }
            let (upper, below) = rows.split_at_mut(pivot + 1);
            let first = &upper[pivot];
            for row in below {
                let factor = row[pivot] / first[pivot];
                for (value, &other) in row.iter_mut().zip(first).skip(pivot) {
                    *value -= factor * other;
                }
            }
        }
        let mut solution = [0.0; COLUMNS];
        for row in (0..n).rev() {
            let known: f64 =
                (row + 1..n).map(|column| rows[row][column] * solution[active[column]] * scale[column]).sum();
            solution[active[row]] = (rows[row][n] - known) / rows[row][row] / scale[row];
        }
        Some(solution)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(observations: &[([f64; COLUMNS], f64)], coefficients: [f64; COLUMNS]) -> f64 {
        let fitted = |columns: &[f64; COLUMNS]| columns.iter().zip(coefficients).map(|(x, b)| x * b).sum::<f64>();
        observations.iter().map(|(columns, value)| (value - fitted(columns)).powi(2)).sum()
    }

    proptest! {
        #[test]
        fn nothing_near_is_better(
            observations in prop::collection::vec((prop::array::uniform4(0.0f64..10.0), -5.0f64..20.0), 1..30),
            steps in prop::collection::vec(prop::array::uniform4(-0.5f64..0.5), 20),
        ) {
            let mut equations = NormalEquations::default();
            observations.iter().for_each(|(columns, value)| equations.add(*columns, *value, 1.0));
            let best = equations.solve_nonnegative();
            prop_assert!(best.iter().all(|coefficient| *coefficient >= 0.0));
            let least = error(&observations, best);
            for step in steps {
                let other = std::array::from_fn(|i| (best[i] + step[i]).max(0.0));
                prop_assert!(least <= error(&observations, other) * (1.0 + 1e-6) + 1e-6);
            }
        }
    }

    #[test]
    fn columns_that_say_the_same_are_used_once() {
        let mut equations = NormalEquations::default();
        for x in 1..20 {
            let x = f64::from(x);
            equations.add([1.0, x, x, 0.0], 3.0 + 2.0 * x, 1.0);
        }
        let [base, one, other, none] = equations.solve_nonnegative();
        assert!((base - 3.0).abs() < 1e-6 && (one + other - 2.0).abs() < 1e-6, "{base} {one} {other}");
        assert!(one == 0.0 || other == 0.0);
        assert_eq!(none, 0.0);
        assert_eq!(NormalEquations::default().solve_nonnegative(), [0.0; 4]);
    }
}
