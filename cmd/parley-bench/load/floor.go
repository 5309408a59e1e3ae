package load

// A FloorReport is what the bare write(2) of a plan's deliveries costs.
type FloorReport struct {
	Sockets    int   `json:"sockets"`
	FrameBytes int   `json:"frame_bytes"`
	Batch      int   `json:"messages_per_write"`
	Deliveries int64 `json:"deliveries"`
	Cost       Cost  `json:"cost"`
}

// floorFrame is a delivery's frame as it is on the wire.
func floorFrame(plan Plan) []byte {
	var text []byte
	if plan.Codec == V1 {
		text = appendSaid(nil, plan.roomName(0))
	}
	text = appendText(text, 0, 0, 0, plan.Size)
	if plan.Codec == V1 {
		text = append(text, `"}`...)
	}
	head := []byte{0x80 | opText, byte(len(text))}
	if len(text) > 125 {
		head = []byte{0x80 | opText, 126, byte(len(text) >> 8), byte(len(text))}
	}
	return append(head, text...)
}
