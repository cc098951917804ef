//! The laboratory: questions about the protocol, played in simulated worlds and answered with figures.
//!
//! A [`scenario`] is a question and the world it is asked in. It is played by the tight epidemic [`model`], by real nodes
//! in a [simulated world](crate::sim) ([`play`]), or by the program of the mesh tier. [`measure`] names what a run is
//! measured by, [`theory`] has the formulas beside it; the [`harness`] plays cells and seeds and adds up [`results`], of
//! which [`report`] makes pages.
//!
//! The laboratory is an ordinary client of the simulated world; `sim` does not know it.

pub mod harness;
pub mod measure;
pub mod model;
pub mod play;
pub mod report;
pub mod results;
pub mod scenario;
pub mod theory;
