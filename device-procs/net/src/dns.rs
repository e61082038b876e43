//! What is looked at of a DNS query: enough to say that the server has failed (RFC 1035 4.1).

/// Bytes of a message's header.
const HEADER: usize = 12;
/// The most bytes of a message over UDP without extensions.
const MAX: usize = 512;
const RESPONSE: u8 = 0x80;
const RECURSION_DESIRED: u8 = 1;
const OPCODE: u8 = 0x78;
const RECURSION_AVAILABLE: u8 = 0x80;
const SERVFAIL: u8 = 2;

/// The number by which an answer finds its query.
pub(crate) fn number(message: &[u8]) -> Option<u16> {
    (message.len() >= HEADER).then(|| u16::from_be_bytes([message[0], message[1]]))
}

/// The answer SERVFAIL to a query; none if it is no query.
pub(crate) fn failure(query: &[u8]) -> Option<Vec<u8>> {
    if query.len() < HEADER || query[2] & RESPONSE != 0 {
        return None;
    }
    let mut answer = query[..HEADER].to_vec();
    answer[2] = RESPONSE | query[2] & (OPCODE | RECURSION_DESIRED);
    answer[3] = RECURSION_AVAILABLE | SERVFAIL;
    answer[4..].fill(0);
    if let Some(end) = question(query) {
        answer[5] = 1;
        answer.extend_from_slice(&query[HEADER..end]);
    }
    Some(answer)
}

/// Where the only question ends, if there is one.
fn question(query: &[u8]) -> Option<usize> {
    if query[4..6] != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        match usize::from(*query.get(at)?) {
            0 => break,
            // In a question there is nothing that a pointer could lead back to.
            len if len > 63 => return None,
            len => at += 1 + len,
        }
    }
    // The root label, type and class.
    let end = at + 1 + 4;
    (end <= query.len() && end <= MAX).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_repeats_the_question() {
        let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        query.extend_from_slice(b"\x07example\x00\x00\x01\x00\x01");
        let question = query.len();
        query.extend_from_slice(&[0, 0, 41, 4, 0, 0, 0, 0, 0, 0, 0]);
        let answer = failure(&query).unwrap();
        assert_eq!(answer[..12], [0xab, 0xcd, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer[12..], query[12..question]);
        assert_eq!(number(&answer), Some(0xabcd));
        // Cut off at any place, there is an answer without a question, or none.
        for len in 0..question {
            assert_eq!(failure(&query[..len]).map(|a| a.len()), (len >= HEADER).then_some(HEADER));
        }
        query[2] |= RESPONSE;
        assert_eq!(failure(&query), None);
    }
}
