//! Least squares, linear in at most three coefficients.

use nalgebra::{DMatrix, DVector};

/// What is fitted: for each observation the terms of the model, and the figure
/// that their sum, each times its coefficient, should be.
pub(super) struct Observations<const TERMS: usize> {
    rows: Vec<([f64; TERMS], f64)>,
}

/// Coefficients and how far off they leave the observations.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fit<const TERMS: usize> {
    /// 0 for terms that were left out.
    pub(super) coefficients: [f64; TERMS],
    /// Sum of the squares of the residuals.
    pub(super) residual: f64,
}

impl<const TERMS: usize> Observations<TERMS> {
    /// Observations whose errors are in proportion to their figures, as those of
    /// times and rates are: residuals are relative, and small figures count as
    /// much as large ones. Figures must not be 0.
    pub(super) fn relative(rows: impl IntoIterator<Item = ([f64; TERMS], f64)>) -> Self {
        let rows = rows.into_iter().map(|(terms, figure)| (terms.map(|term| term / figure), 1.0));
        Self { rows: rows.collect() }
    }

    /// How many.
    pub(super) const fn len(&self) -> usize {
        self.rows.len()
    }

    /// Residuals that `coefficients` leave.
    pub(super) fn residuals(&self, coefficients: [f64; TERMS]) -> impl Iterator<Item = f64> {
        self.rows.iter().map(move |(terms, figure)| {
            figure - terms.iter().zip(coefficients).map(|(term, c)| term * c).sum::<f64>()
        })
    }

    /// The best coefficients for the terms in `used`, those of others being 0;
    /// `None` if the observations do not determine them.
    pub(super) fn fit(&self, used: &[usize]) -> Option<Fit<TERMS>> {
        // Columns of one length: terms may differ by orders of magnitude.
        let length = |column: usize| {
            self.rows.iter().map(|(terms, _)| terms[column].powi(2)).sum::<f64>().sqrt()
        };
        let lengths: Vec<f64> = used.iter().map(|column| length(*column)).collect();
        if self.len() < used.len() || lengths.iter().any(|length| !length.is_normal()) {
            return None;
        }
        let matrix = DMatrix::from_fn(self.len(), used.len(), |row, column| {
            self.rows[row].0[used[column]] / lengths[column]
        });
        let figures =
            DVector::from_iterator(self.len(), self.rows.iter().map(|(_, figure)| *figure));
        let svd = matrix.svd(true, true);
        const SINGULAR: f64 = 1e-12;
        if svd.singular_values.min() < SINGULAR * svd.singular_values.max() {
            return None;
        }
        let solution = svd.solve(&figures, 0.0).ok()?;
        let mut coefficients = [0.0; TERMS];
        for (position, column) in used.iter().enumerate() {
            coefficients[*column] = solution[position] / lengths[position];
        }
        let residual = self.residuals(coefficients).map(|r| r * r).sum();
        Some(Fit { coefficients, residual })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_and_a_term_left_out_is_zero() {
        let rows = [1.0, 2.0, 4.0].map(|x| ([1.0, x, x * x], 3.0 + 2.0 * x));
        let observations = Observations::relative(rows);
        let fit = observations.fit(&[0, 1]).unwrap();
        assert!(
            (fit.coefficients[0] - 3.0).abs() < 1e-9 && (fit.coefficients[1] - 2.0).abs() < 1e-9
        );
        assert_eq!(fit.coefficients[2], 0.0);
        assert!(fit.residual < 1e-20, "{fit:?}");
    }

    #[test]
    fn small_figures_count_as_much_as_large_ones() {
        // One constant for 1 and 1000: of the two, 1 is off by more than 100 %
        // of itself with any larger constant.
        let fit = Observations::relative([([1.0], 1.0), ([1.0], 1000.0)]).fit(&[0]).unwrap();
        assert!((fit.coefficients[0] - 1.0).abs() < 0.01, "{fit:?}");
    }

    #[test]
    fn terms_that_cannot_be_told_apart_have_no_fit() {
        let same = Observations::relative([1.0, 2.0, 3.0].map(|x| ([x, 2.0 * x], x)));
        assert_eq!(same.fit(&[0, 1]), None);
        let zero = Observations::relative([([1.0, 0.0], 1.0), ([1.0, 0.0], 2.0)]);
        assert_eq!(zero.fit(&[0, 1]), None, "a term that is 0 everywhere");
        let few = Observations::relative([([1.0, 2.0], 1.0)]);
        assert_eq!(few.fit(&[0, 1]), None);
    }
}
