//! One file per subcommand.

pub mod kubectl;
pub mod up;
