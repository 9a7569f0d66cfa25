"""What must be true before a deployment is made and before it is switched over: each condition one object with a name.

``model`` says what such an object is, ``registry`` lists all of them, ``run`` looks at them; the other modules hold the
conditions themselves, by theme. A condition that becomes one that Verdigris deals with by itself is taken out of its
module's tuple, or its ``look`` leaves out what is dealt with.
"""
