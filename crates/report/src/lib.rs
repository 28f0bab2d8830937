//! The plain facts that a compilation reports.
