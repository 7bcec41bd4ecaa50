"""From an image to landmarks: `Detector.detect` -> face detection -> `LandmarkPredictor` -> `Answer` -> `Face`.

Also model files (`checkpoint`), the coarse-to-fine `cascade`, `export` to ONNX, and batches of images written to files. Imports
core, landmarks, models, data and visualization; training, evaluation, video and cli may import it. Nothing here imports torch
before a network runs by it.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "answer": ["Answer", "make_answer"],
        "arguments": ["check_boxes"],
        "batch": ["DetectionResult", "detect_images"],
        "detector": ["Detector"],
        "face": ["Face", "to_supervision"],
        "head_pose": ["HeadPose", "head_pose", "head_poses"],
        "labelled": ["SamplePredictions", "labelled_box", "predict_samples"],
        "loading": ["load_predictor"],
        "predictor": ["CropPrediction", "LandmarkPredictor", "Prediction"],
        "predictor_onnx": ["OnnxPredictor", "find_onnx_export"],
        "predictor_torch": ["TorchPredictor"],
        "writers": ["open_results"],
    },
)
