"""What libraries say that a user can mend, and what to do about it."""

# What libraries raise that are not imported here: Lightning, joblib, submitit.
LIBRARIES = {"MisconfigurationException", "TerminatedWorkerError", "FailedJobError", "UncompletedJobError"}

# What their errors of any class say that a user can mend.
SAID = (
    "/gloo/",
    "find_unused_parameters",
    "Training with multiple optimizers",
    "Early stopping conditioned on metric",
    "An invalid dataloader was returned",
    "different number of parameter groups",
    "You provided multiple `",
    "does not allow for gradient clipping",
)

# The same of what a step of the user's own code does, whose place is said too.
SAID_OF_A_STEP = (
    "does not have a deterministic implementation",
    "device-side assert triggered",
    "CUDA out of memory",
)

OTHER_WEIGHTS = "Error(s) in loading state_dict"

# What a library says -> what to do about it.
HINTS = {
    OTHER_WEIGHTS: "the network is another than that of the run to resume; restore its code, or begin a new run with"
    " ckpt_path=.../checkpoints/best.ckpt ckpt_strict=false, which takes the weights that fit",
    "find_unused_parameters": "a step leaves some parameters without a gradient, which DDP has to know; add"
    " +trainer.strategy.find_unused_parameters=true",
    "different number of parameter groups": "the optimizer of the run to resume had other groups of parameters, as a"
    " hook has added one; such a run cannot be resumed, begin a new one with ckpt_path=.../checkpoints/last.ckpt",
    "CUDAAccelerator` can not run": "no GPU can be used on this machine; take trainer.accelerator=cpu or auto",
    "No supported gpu backend found": "no GPU can be used on this machine; take trainer.accelerator=cpu or auto",
    "does not have a deterministic implementation": "an operation has no deterministic way on this device, so that"
    " equal seeds would not give equal bits; compute it otherwise, or take trainer.deterministic=warn, which names it",
    "device-side assert triggered": "the GPU stopped at a value out of range, as the index of a class or a token that"
    " does not exist; run it on the CPU, which shows where (trainer.accelerator=cpu; predict.py has device=cpu)",
    "CUDA out of memory": "the GPU's memory is full; take smaller batches or a lower precision, and see with nvidia-smi"
    " what else has a part of it",
    "does not allow for gradient clipping": "a fused optimizer cannot be clipped in mixed precision; take"
    " optimizer.fused=false, or leave out trainer.gradient_clip_val",
    "pip install -U 'wandb": "needs the package wandb: pip install wandb",
    "pip install -U 'mlflow": "needs the package mlflow: pip install mlflow, or only mlflow-skinny sqlalchemy alembic",
    "No module named 'sqlalchemy": "needs SQLAlchemy and Alembic for its store: pip install sqlalchemy alembic",
    "No module named 'scipy": "needs SciPy to read this data set: pip install scipy",
    "Ambiguous value for argument": "several values: add -m to sweep over them, or write a list as [a,b]",
    "Could not override 'sweep'": "a file in conf/ cannot name a sweep; type it, as in sweep=seeds",
    "/gloo/": "another rank of this run has ended, see what it said; HYDRA_FULL_ERROR=1 shows where this one was",
    "No module named 'alembic": "needs SQLAlchemy and Alembic for its store: pip install sqlalchemy alembic",
}
