package fleet

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"time"

	"sluice/route/ratelimit"
)

const (
	// maxKeys is of how many keys of a limit a replica tells the others, and maxAllKeys of how many
	// of all limits.
	maxKeys    = 1000
	maxAllKeys = 10_000
	// maxCountsBytes is enough for maxAllKeys of many limits.
	maxCountsBytes = 1 << 20
	// countBytes is the length of a ratelimit.Count in Counts: hash, tokens taken, asked for, and
	// lacking.
	countBytes = 8 + 4 + 4 + 4
)

// Counts is the body of /api/limits/counts: what a replica has counted in its last round, and which
// tokens were taken since the round after which another replica asks.
type Counts struct {
	Replica  string `json:"replica"`  // its registration's MetaReplica
	Process  string `json:"process"`  // differs after each start
	Sequence uint64 `json:"sequence"` // of the round
	AgeMS    int64  `json:"age_ms"`   // since the end of the round
	Seed     string `json:"seed"`     // of the hashes of keys, hexadecimal
	// Limits has the counts of each limit by its id: 20 bytes for each key, the lowest first, in
	// base64. Keys themselves, which may be addresses of people, are not told.
	Limits map[string]string `json:"limits"`
}

// parseSeed reads a seed in hexadecimal.
func parseSeed(text string) (s ratelimit.Seed, err error) {
	if n, err := hex.Decode(s[:], []byte(text[:min(len(text), 2*len(s))])); err != nil || n != len(s) || len(text) != 2*len(s) {
		return s, errors.New("not an answer of sluice: it has no seed")
	}
	return s, nil
}

func encode(counts []ratelimit.Count) string {
	b := make([]byte, 0, len(counts)*countBytes)
	for _, c := range counts {
		b = binary.LittleEndian.AppendUint64(b, c.Hash)
		b = binary.LittleEndian.AppendUint32(b, c.Taken)
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(c.Asked))
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(c.Debt))
	}
	return base64.StdEncoding.EncodeToString(b)
}

// decode returns at most maxKeys counts. It omits what are no counts.
func decode(text string) (counts []ratelimit.Count) {
	b, _ := base64.StdEncoding.DecodeString(text) // what is not base64 has none
	for ; len(b) >= countBytes && len(counts) < maxKeys; b = b[countBytes:] {
		c := ratelimit.Count{
			Hash: binary.LittleEndian.Uint64(b), Taken: binary.LittleEndian.Uint32(b[8:]),
			Asked: math.Float32frombits(binary.LittleEndian.Uint32(b[12:])), Debt: math.Float32frombits(binary.LittleEndian.Uint32(b[16:])),
		}
		// Neither is NaN.
		if c.Asked >= 0 && c.Asked <= math.MaxFloat32 && math.Abs(float64(c.Debt)) <= math.MaxFloat32 {
			counts = append(counts, c)
		}
	}
	return counts
}

// keptRounds is how many rounds a replica keeps for others, which may ask later than in each.
const keptRounds = 8

// counted is what this replica has counted in a round.
type counted struct {
	sequence uint64
	ended    time.Time
	seed     ratelimit.Seed
	limits   map[string][]ratelimit.Count // by id
}

// countsSince returns the last of some rounds, with the tokens that were taken after another one.
func countsSince(rounds []counted, sequence uint64) map[string]string {
	last := rounds[len(rounds)-1]
	limits := make(map[string]string, len(last.limits))
	for id, counts := range last.limits {
		var all [][]ratelimit.Count
		for _, r := range rounds[:len(rounds)-1] {
			if r.sequence > sequence && r.seed == last.seed {
				all = append(all, r.limits[id])
			}
		}
		limits[id] = encode(ratelimit.Sum(append(all, counts)))
	}
	return limits
}
