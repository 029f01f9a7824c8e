use super::*;

const fn stamp(opening: u32, count: u32) -> Stamp {
    Stamp { opening, count }
}

const OPEN: Mark =
    Mark { opening: 9, newest: stamp(7, 50), file: stamp(5, 40), log: Some(Salts(u32::MAX, 3)) };

fn found(mark: &Mark, file: Stamp, log: Option<Salts>) -> Found {
    Found { is_new: false, mark: Some(mark.text()), file, log }
}

#[test]
fn what_is_written_is_read_again_and_nothing_else() {
    for mark in [OPEN, Mark { log: None, ..OPEN }] {
        let text = mark.text();
        assert_eq!((Mark::parse(&text), text.len()), (Some(mark), OPEN.text().len()));
        assert!(text.len() < 512);
        for bad in ["", "rescind 1", text.trim_end(), &text.replace(' ', "  "), &text.to_uppercase()] {
            assert_eq!(Mark::parse(bad), None, "{bad:?}");
        }
    }
}

// check 97
#[test]
fn all_that_was_answered_has_to_be_there() {
    let newest = OPEN.newest;
    let judge = |file, log, newest| found(&OPEN, file, log).judge(newest);
    // The cases that a power cut leaves during a commit or a copy of the log.
    for log in [OPEN.log, Some(Salts(0, 77))] {
        for file in [OPEN.file, stamp(7, 45), newest, stamp(9, 51)] {
            for newest in [newest, stamp(9, 51), stamp(9, 60)] {
                assert_eq!(judge(file, log, newest), Ok(()), "{file:?} {log:?} {newest:?}");
            }
        }
    }
    for log in [None, Some(Salts(7, 3)), Some(Salts(1, 3)), Some(Salts(u32::MAX - 1, 3))] {
        assert_eq!(judge(OPEN.file, log, newest), Err(WentBack::Log), "{log:?}");
    }
    for file in [stamp(5, 39), stamp(0, 0), stamp(6, 45)] {
        assert_eq!(judge(file, OPEN.log, newest), Err(WentBack::File), "{file:?}");
    }
    for newest in [stamp(7, 49), stamp(5, 50), stamp(8, 60), stamp(0, 0)] {
        assert_eq!(judge(OPEN.file, OPEN.log, newest), Err(WentBack::File), "{newest:?}");
    }
    // A file that has all commits needs no log.
    let closed = Mark { file: newest, log: None, ..OPEN };
    assert_eq!(found(&closed, newest, None).judge(newest), Ok(()));
    assert_eq!(found(&closed, newest, OPEN.log).judge(stamp(9, 51)), Ok(()));
    assert_eq!(found(&closed, stamp(5, 49), None).judge(stamp(5, 49)), Err(WentBack::File));
}

#[test]
fn the_count_begins_anew_after_the_last_number() {
    let last = Mark { newest: stamp(7, u32::MAX), file: stamp(7, u32::MAX), ..OPEN };
    assert_eq!(found(&last, last.file, OPEN.log).judge(stamp(9, 0)), Ok(()));
    let first = Mark { newest: stamp(7, 0), file: stamp(7, 0), ..OPEN };
    assert_eq!(found(&first, first.file, OPEN.log).judge(stamp(7, u32::MAX)), Err(WentBack::File));
}
