//! Enums that are one word in YAML.

/// Defines an enum of unit variants with `ALL`, `as_str`, `description`, `Display` and `FromStr`.
macro_rules! closed_set {
    (
        $(#[$meta:meta])*
        pub enum $name:ident or $err:ty = $mk_err:expr;
        { $($(#[$($vmeta:tt)*])* $variant:ident,)+ }
    ) => {
        $(#[$meta])*
        pub enum $name {
            $($(#[$($vmeta)*])* $variant,)+
        }

        impl $name {
            /// All values, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The value as it stands in YAML.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)+
                }
            }

            /// What the value means: its documentation.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($crate::closed_set::doc_line!($($vmeta)*)),*).trim_ascii(),)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $err;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                match s {
                    $(stringify!($variant) => Ok(Self::$variant),)+
                    _ => Err($mk_err(s)),
                }
            }
        }
    };
}

/// The text of an attribute that is a line of documentation; nothing for any other attribute.
macro_rules! doc_line {
    (doc = $line:literal) => {
        $line
    };
    ($($other:tt)*) => {
        ""
    };
}

pub(crate) use {closed_set, doc_line};
