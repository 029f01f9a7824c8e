//! Files that the process reads and writes, but for the store's: the data folder, certificates and keys, and who
//! else may read or change them.

pub mod data_folder;
pub mod pem;
pub mod permissions;
