package accesslog

import (
	"math"
	"time"
)

// clocks are the clocks of a shard.
type clocks struct{ rfc3339, combined clock }

func newClocks() clocks {
	return clocks{newClock(layoutRFC3339), newClock(layoutCombined)}
}

// clock formats times, and reuses the text of the last second.
type clock struct {
	second int64 // Unix time of text
	text   []byte
	layout string
}

func newClock(layout string) clock {
	return clock{second: math.MinInt64, text: make([]byte, 0, 32), layout: layout}
}

const (
	layoutRFC3339  = "2006-01-02T15:04:05."
	layoutCombined = "02/Jan/2006:15:04:05 -0700"
)

func (c *clock) format(t time.Time) []byte {
	if s := t.Unix(); s != c.second {
		c.second = s
		c.text = t.UTC().AppendFormat(c.text[:0], c.layout)
	}
	return c.text
}

func (c *clock) appendRFC3339(b []byte, t time.Time) []byte {
	b = append(b, c.format(t)...)
	ms := t.Nanosecond() / int(time.Millisecond)
	return append(b, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}
