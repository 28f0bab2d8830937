//! The numeric contract: dyadic scales, requantisation, formats.
