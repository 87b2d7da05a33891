package proxy

// spliceMinBytes is from how many bytes on the rest of a body is moved from
// socket to socket within the kernel: below, setting that up costs more than
// copying.
const spliceMinBytes = 64 << 10
