package zcore

// Step names a point between two steps of a commit, a read or a watch, at which a test may stop or
// reorder what goes on.
type Step string

// The steps, in the order of events.
const (
	StepReceived   Step = "commit: received"
	StepPublished  Step = "commit: published"
	StepFileLost   Step = "commit: a file is lost, its watches are not ended yet"
	StepDelta      Step = "commit: delta computed"
	StepView       Step = "commit: view moved"
	StepInvalidate Step = "commit: about to invalidate a block"
	StepDropped    Step = "commit: blocks dropped"
	StepAnnounced  Step = "commit: announced"

	StepReadView  Step = "read: took the view"
	StepReadFound Step = "read: looked up"
	StepReadTrack Step = "read: tracked"
	StepReadLoad  Step = "read: loaded"
	StepReadPins  Step = "read: pins acknowledged"

	StepWatchHold    Step = "watch: took a hold"
	StepWatchFile    Step = "watch: found the file"
	StepWatchDropped Step = "watch: removed for another"
	StepWatchEnter   Step = "watch: entered the table"
	StepWatchView    Step = "watch: took the view"
	StepWatchChanged Step = "watch: found what changed"
	StepPinDecide    Step = "pin: about to be decided"
	StepPinSend      Step = "pin: about to be sent"
	StepKeep         Step = "keep: about to store under @rev"
	StepUpload       Step = "upload: checked"
	StepPrefetch     Step = "prefetch: looked up"
)

func (c *Core) step(s Step) {
	if c.opts.Step != nil {
		c.opts.Step(s)
	}
}
