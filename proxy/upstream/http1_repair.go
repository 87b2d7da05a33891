package upstream

import (
	"bytes"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/observe/excerpt"
	"sluice/proxy/http1"
	"sluice/proxy/socket"
)

// readRepaired is ReadHead for a head that the strict scanner has refused. text is in memory of
// its own. After a head that was repaired the connection is not used again: what follows its
// message, for the peer, may be another response for sluice.
//
// Each repair begins anew, so there is one for each arrival of lines, whose number has a limit.
func (u *HTTP1Conn) readRepaired(b *socket.Buffers, head *http1.ResponseHead) (text []byte, err error) {
	options := &u.transport.options
	for searched := 0; ; {
		raw := b.From[:min(u.end, int(options.HeadBytes))]
		arrived := bytes.IndexByte(raw[searched:], '\n') >= 0
		if searched = len(raw); arrived {
			text, n, fault := http1.RepairResponse(raw, options.Fields)
			switch {
			case fault != nil:
				u.transport.refused.report(*fault)
				if fault.Err == http1.ErrTooManyFields {
					return nil, http1.ErrResponseTooLong
				}
				return nil, fault.Err
			case n > 0:
				u.start, u.repaired = n, true
				head.Reset(options.Fields)
				if _, err := head.Scan(text); err != nil {
					return nil, err
				}
				u.private = u.private || head.ConnectionAuth
				return text, nil
			}
		}
		if err := u.readMore(b); err != nil {
			return nil, err
		}
	}
}

// refusedAnswers log why answers of a peer are refused, once a minute. Safe for concurrent use.
type refusedAnswers struct {
	peer *balancer.Peer
	log  zerolog.Logger

	mu sync.Mutex
	// mu guards the fields below.
	answers  int       // that were refused since a line was logged
	loggedAt time.Time // when that was
}

// maxFieldName is how much of a field name, which the peer chooses, is in a line.
const maxFieldName = 64

// report logs the fault of a head.
func (r *refusedAnswers) report(f http1.Fault) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answers++; now.Sub(r.loggedAt) < failureEvery {
		return
	}
	line := r.log.Warn().Str("service", r.peer.ID.Service).Str("peer", r.peer.ID.ID).Str("address", r.peer.Address()).
		Str("rule", f.Rule).Int("offset", f.Offset).Int("answers", r.answers)
	if f.Field != "" {
		line = line.Str("field", excerpt.Of(f.Field, maxFieldName))
	}
	line.Msg("a peer's answer is refused")
	r.answers, r.loggedAt = 0, now
}

// reportBody logs the error of a chunked body, if it is malformed, after length bytes of its data.
func (r *refusedAnswers) reportBody(err error, length int64) {
	if malformed, ok := errors.AsType[*http1.Error](err); ok {
		r.report(http1.Fault{Rule: malformed.Reason, Offset: int(length)})
	}
}
