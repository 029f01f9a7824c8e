//! Files other than the store's: the data folder, certificates and keys, and which users may read or change them.

pub mod data_folder;
pub mod pem;
pub mod permissions;
