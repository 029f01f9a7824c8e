//! The signals of a process that goes on until it is stopped.

use std::{future::pending, io};

use futures_util::{
    FutureExt,
    future::{BoxFuture, select_all},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Waits for the first of these signals. All of them are caught as soon as this function returns.
pub(super) fn first_of(kinds: &[SignalKind]) -> io::Result<BoxFuture<'static, ()>> {
    let mut signals = kinds.iter().copied().map(signal).collect::<io::Result<Vec<Signal>>>()?;
    let first = async move {
        let received = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        select_all(received).await;
    };
    Ok(first.boxed())
}

/// Counts these signals, from the moment when this function returns. It is called in a runtime.
pub(super) fn counted(kinds: &[SignalKind]) -> io::Result<watch::Receiver<u32>> {
    let (sender, count) = watch::channel(0);
    for &kind in kinds {
        let (mut signals, sender) = (signal(kind)?, sender.clone());
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                sender.send_modify(|count| *count += 1);
            }
        });
    }
    Ok(count)
}

/// Waits until this many signals were counted.
pub(super) fn at_least(wanted: u32, mut counted: watch::Receiver<u32>) -> BoxFuture<'static, ()> {
    let wanted = async move {
        if counted.wait_for(|&count| count >= wanted).await.is_err() {
            pending::<()>().await;
        }
    };
    wanted.boxed()
}

/// Keeps these signals from ending the process.
pub(super) fn ignore(kinds: &[SignalKind]) -> io::Result<()> {
    // Once a signal is caught, it stays caught.
    kinds.iter().try_for_each(|&kind| signal(kind).map(drop))
}
