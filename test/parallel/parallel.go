// Package parallel lets packages whose tests mostly wait run more of them at a time than there
// are processors, and tests run something beside them.
package parallel

import (
	"flag"
	"strconv"
)

// SetDefault sets how many tests run at a time, unless the command line does (-parallel). Call
// it from TestMain.
func SetDefault(tests int) {
	const name = "test.parallel"
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return
	}
	if err := flag.Set(name, strconv.Itoa(tests)); err != nil {
		panic(err)
	}
}
