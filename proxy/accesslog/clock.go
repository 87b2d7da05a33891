package accesslog

import "time"

// clocks are the clocks of a shard. The zero value is ready.
type clocks struct{ rfc3339, combined clock }

// clock formats times in one layout, and reuses the text of the last second.
type clock struct {
	second int64 // Unix time of text
	text   []byte
}

const (
	layoutRFC3339  = "2006-01-02T15:04:05."
	layoutCombined = "02/Jan/2006:15:04:05 -0700"
)

func (c *clock) format(t time.Time, layout string) []byte {
	if s := t.Unix(); s != c.second || c.text == nil {
		c.second = s
		c.text = t.UTC().AppendFormat(c.text[:0], layout)
	}
	return c.text
}

func (c *clocks) appendRFC3339(b []byte, t time.Time) []byte {
	b = append(b, c.rfc3339.format(t, layoutRFC3339)...)
	ms := t.Nanosecond() / int(time.Millisecond)
	return append(b, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}
